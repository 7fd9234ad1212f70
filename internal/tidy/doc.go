// Package tidy keeps the house rules of this repository, as tests.
//
// What enters: every Go file of the repository, parsed and never built, so that files behind build tags count like the others,
// every Markdown file, and the names of the rest. What leaves: one line for each broken rule, with the file and the line to
// look at. The rules and why they are what they are: docs/design/0001-the-house.md; the words: docs/terms.md.
//
//	go test ./internal/tidy               // all rules
//	go test ./internal/tidy -run Lines -v // lines of code of each package
//
// A rule is a function from the tree to its faults; laws_test.go feeds each of them a small tree that breaks it.
package tidy
