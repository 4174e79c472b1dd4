// A web application that behaves as its first argument says; the second one is the text of its page.
//
//	serve      serves
//	exit       exits at once
//	exit-once  exits at the pod's first start, and serves from the second on
//	port       serves on another port than Knative asks for
//	silent     never listens
package main

import (
	"fmt"
	"net/http"
	"os"
)

// A file of the pod that outlives its containers.
const started = "/dev/shm/started"

func main() {
	behaviour, page := os.Args[1], os.Args[2]
	port := os.Getenv("PORT")
	switch behaviour {
	case "exit":
		fmt.Println("cannot read the configuration")
		os.Exit(3)
	case "exit-once":
		if _, err := os.Stat(started); err != nil {
			if err := os.WriteFile(started, nil, 0o644); err != nil {
				fmt.Println(err)
			}
			os.Exit(3)
		}
	case "port":
		port = "9999"
	case "silent":
		select {}
	}
	http.HandleFunc("/", func(response http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(response, page)
	})
	fmt.Println(http.ListenAndServe(":"+port, nil))
	os.Exit(1)
}
