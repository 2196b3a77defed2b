// Command old-aws-sdk-go prints who it is, as an application does that was built with AWS's SDK for Go v1 of before Pod
// Identity. It asks the region's STS; the rest the SDK reads from its environment. What the SDK logs goes to standard error.
package main

import (
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/endpoints"
	"github.com/aws/aws-sdk-go/aws/session"
	"github.com/aws/aws-sdk-go/service/sts"
)

func main() {
	arn, err := identity()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(arn)
}

func identity() (string, error) {
	settings := aws.NewConfig().
		WithSTSRegionalEndpoint(endpoints.RegionalSTSEndpoint).
		WithLogger(aws.LoggerFunc(func(words ...any) { fmt.Fprintln(os.Stderr, words...) }))
	opened, err := session.NewSession(settings)
	if err != nil {
		return "", err
	}
	found, err := sts.New(opened).GetCallerIdentity(&sts.GetCallerIdentityInput{})
	if err != nil {
		return "", err
	}
	return aws.StringValue(found.Arn), nil
}
