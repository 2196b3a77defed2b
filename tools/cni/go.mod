module podid.dev/tools/cni

go 1.25

require github.com/containernetworking/plugins v1.9.1 // indirect
