//go:build tools

// The database of the API server, built from its published module: go.sum pins every byte of it.
package tools

import _ "go.etcd.io/etcd/server/v3"
