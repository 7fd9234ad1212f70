// Package model is the catalogue: for every family its numbers, its weight names and how its parts are put together.
package model
