// Package weak holds the switches by which tests turn single protections off.
//
// A protection that nobody has seen fail is a guess. For each class of known
// escapes there is a test that tries the attack twice: as everybody runs it,
// where it must fail, and with just the one protection off, where it must
// succeed. The switches exist under the build tag "weakened" only; every other
// build sees a constant, and the compiler drops the branch.
package weak

// Protection is one that can be turned off.
type Protection string
