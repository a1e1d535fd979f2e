// Serves `verify` of notifications.js with Node's own HTTP server, or the Express app of the documentation.
const fs = require("node:fs");
const http = require("node:http");
const { verify } = require("./notifications.js");
const { handle } = require("./handle.js");

const secrets = process.env.NODROP_SECRETS.split(",");

function take(request, response) {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    let status = 500;
    try {
      const body = Buffer.concat(pieces);
      const isGenuine = verify(request.headers, body, secrets);
      if (isGenuine) handle(JSON.parse(body));
      status = isGenuine ? 204 : 400;
    } catch (error) {
      console.error(error);
    }
    response.writeHead(status).end();
  });
}

const taker = fs.existsSync(`${__dirname}/express_app.js`) ? require("./express_app.js").app : take;
http.createServer(taker).listen(Number(process.env.PORT), "127.0.0.1");
