package usher

// For tests that speak the protocol themselves.
var CreatePage = createPage
