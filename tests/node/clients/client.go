// Go as applications have it: go run client.go URL HOST PORT
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

const patience = 60 * time.Second

func tell(name string, good bool, why ...any) {
	if good {
		fmt.Println("ok", name)
	} else {
		fmt.Println("FAILED", name, why)
	}
}

func status(url string) (int, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{}}
	answer, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

func exchange(address string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if peer := conn.RemoteAddr().String(); peer != address {
		return "", fmt.Errorf("peer %s", peer)
	}
	if _, err = io.WriteString(conn, "who\n"); err != nil {
		return "", err
	}
	if err = conn.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return line, err
}

func main() {
	url, address := os.Args[1], net.JoinHostPort(os.Args[2], os.Args[3])
	code, err := status(url + "/open")
	tell("http", code == 200, code, err)
	code, err = status(url + "/secret")
	tell("http_denied", code == 403, code, err)
	results := make(chan error)
	for i := 0; i < 50; i++ {
		go func() {
			line, err := exchange(address)
			if err == nil && len(strings.Fields(line)) != 3 {
				err = fmt.Errorf("answered %q", line)
			}
			results <- err
		}()
	}
	var failed error
	for i := 0; i < 50; i++ {
		if err := <-results; err != nil {
			failed = err
		}
	}
	tell("sockets", failed == nil, failed)
}
