// Command surgetank is the server and its tools. Each subcommand has a file of its own.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
