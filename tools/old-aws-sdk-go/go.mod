module podid.dev/tools/old-aws-sdk-go

go 1.25

require github.com/aws/aws-sdk-go v1.47.10

require github.com/jmespath/go-jmespath v0.4.0 // indirect
