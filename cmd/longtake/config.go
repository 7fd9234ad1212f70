package main

func (g *generateCommand) readConfig() error { return nil }
