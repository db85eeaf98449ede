//go:build tools

// The simulator of nodes, built from its published module: go.sum pins every byte of it.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
