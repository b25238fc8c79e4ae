package main

func benchSink(*report, string) error { return nil }
