//go:build slow

package sessionstore_test

// propertyFactor is how much longer the property tests search with -tags slow.
const propertyFactor = 10
