//go:build tools

// Pins the stock command line for flows, which a test reads an agent with. It is built only when that test asks for it.
package tools

import _ "github.com/cilium/cilium/hubble"
