//go:build tools

// Pins Kubernetes' own end-to-end tests, what runs them, and the program that they put into pods. No lab needs them:
// they are built when conformance is tested.
package tools

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
