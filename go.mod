module github.com/surgetank/surgetank

go 1.26
