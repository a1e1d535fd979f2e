// Serves the handler of notifications.go. The shop's part: a line for each notification that is new, and an error on
// request.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
)

var seen = map[string]bool{}

func handle(body []byte) error {
	if _, err := os.Stat(os.Getenv("FAIL")); err == nil {
		return errors.New("the database is away")
	}
	var message struct {
		Id   string
		Data struct {
			Order_no string
			Version  int
		}
	}
	if err := json.Unmarshal(body, &message); err != nil || seen[message.Id] {
		return err
	}
	file, err := os.OpenFile(os.Getenv("EFFECTS"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	seen[message.Id] = true
	_, err = fmt.Fprintf(file, "%s %d\n", message.Data.Order_no, message.Data.Version)
	return err
}

func main() {
	http.HandleFunc("/notifications", notifications(strings.Split(os.Getenv("NODROP_SECRETS"), ","), handle))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
