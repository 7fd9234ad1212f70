//go:build race

package cpu

// raceBuild says that every access is watched, some twenty times slower: tests then try fewer sizes.
const raceBuild = true
