// The shop's part: a line for each notification that is new, and an error on request.
const fs = require("node:fs");

const seen = new Set();

function handle(message) {
  if (fs.existsSync(process.env.FAIL)) throw new Error("the database is away");
  if (seen.has(message.id)) return;
  seen.add(message.id);
  fs.appendFileSync(process.env.EFFECTS, `${message.data.order_no} ${message.data.version}\n`);
}

module.exports = { handle };
