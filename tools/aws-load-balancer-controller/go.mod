module podid.dev/tools/aws-load-balancer-controller

go 1.26.2

require sigs.k8s.io/aws-load-balancer-controller v0.0.0-00010101000000-000000000000

// The module's path has no major version, so that its release tags do not resolve: this is the commit of release 3.2.2.
replace sigs.k8s.io/aws-load-balancer-controller => github.com/kubernetes-sigs/aws-load-balancer-controller v0.0.0-20260423195125-93ff3b5fdaad
