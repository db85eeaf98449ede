//go:build tools

// An operator of others, built from its published module: go.sum pins every byte of it.
package tools

import _ "github.com/ray-project/kuberay/ray-operator"
