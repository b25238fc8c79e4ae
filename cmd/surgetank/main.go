// Command surgetank is the server and its tools: one binary, one subcommand a file.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
