// Command aws-sdk-go makes a few calls as an application built with AWS's SDK for Go makes them: nothing is set but what
// the SDK itself reads from its environment. It prints one JSON object, or fails with AWS's words on standard error.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

const usage = `aws-sdk-go identity
aws-sdk-go put BUCKET KEY [CRC32|CRC32C|CRC64NVME|SHA1|SHA256]   (content: standard input)
aws-sdk-go get BUCKET KEY
aws-sdk-go secret ID`

type answer map[string]any

var errUsage = errors.New(usage)

func main() {
	result, err := run(context.Background(), os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, words []string) (answer, error) {
	if len(words) == 0 {
		return nil, errUsage
	}
	settings, err := config.LoadDefaultConfig(ctx, config.WithRetryMaxAttempts(1))
	if err != nil {
		return nil, err
	}
	verb, rest := words[0], words[1:]
	switch {
	case verb == "identity" && len(rest) == 0:
		return identity(ctx, settings)
	case verb == "put" && (len(rest) == 2 || len(rest) == 3):
		return put(ctx, settings, rest)
	case verb == "get" && len(rest) == 2:
		return get(ctx, settings, rest[0], rest[1])
	case verb == "secret" && len(rest) == 1:
		return secret(ctx, settings, rest[0])
	}
	return nil, errUsage
}

func identity(ctx context.Context, settings aws.Config) (answer, error) {
	found, err := sts.NewFromConfig(settings).GetCallerIdentity(ctx, nil)
	if err != nil {
		return nil, err
	}
	return answer{"account": found.Account, "arn": found.Arn, "userId": found.UserId}, nil
}

// put uploads standard input: over TLS the SDK sends it in chunks, with a checksum behind them.
func put(ctx context.Context, settings aws.Config, words []string) (answer, error) {
	content, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, err
	}
	input := &s3.PutObjectInput{Bucket: &words[0], Key: &words[1], Body: bytes.NewReader(content)}
	if len(words) == 3 {
		input.ChecksumAlgorithm = types.ChecksumAlgorithm(words[2])
	}
	made, err := storage(settings).PutObject(ctx, input)
	if err != nil {
		return nil, err
	}
	return answer{
		"etag":      made.ETag,
		"crc32":     made.ChecksumCRC32,
		"crc32c":    made.ChecksumCRC32C,
		"crc64nvme": made.ChecksumCRC64NVME,
		"sha1":      made.ChecksumSHA1,
		"sha256":    made.ChecksumSHA256,
	}, nil
}

func get(ctx context.Context, settings aws.Config, bucket, key string) (answer, error) {
	found, err := storage(settings).GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return nil, err
	}
	defer found.Body.Close()
	content, err := io.ReadAll(found.Body)
	if err != nil {
		return nil, err
	}
	return answer{"content": string(content)}, nil
}

func secret(ctx context.Context, settings aws.Config, id string) (answer, error) {
	found, err := secretsmanager.NewFromConfig(settings).GetSecretValue(
		ctx, &secretsmanager.GetSecretValueInput{SecretId: &id},
	)
	if err != nil {
		return nil, err
	}
	return answer{"arn": found.ARN, "secret": found.SecretString}, nil
}

// storage returns a client of S3; a bucket has no host name of its own below an endpoint on loopback.
func storage(settings aws.Config) *s3.Client {
	return s3.NewFromConfig(settings, func(options *s3.Options) {
		options.UsePathStyle = os.Getenv("AWS_ENDPOINT_URL") != ""
	})
}
