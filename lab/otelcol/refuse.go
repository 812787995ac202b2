package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processorhelper"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// refuseConfig names a file. While it exists, logs are refused as its words say: "busy SECONDS" with that Retry-After,
// "bad TEXT" when a record's uid contains the text. What the receiver makes of that is its own.
type refuseConfig struct {
	File string `mapstructure:"file"`
}

func newRefuseFactory() processor.Factory {
	return processor.NewFactory(
		component.MustNewType("refuse"),
		func() component.Config { return &refuseConfig{} },
		processor.WithLogs(createRefuse, component.StabilityLevelDevelopment),
	)
}

func createRefuse(
	ctx context.Context, settings processor.Settings, config component.Config, next consumer.Logs,
) (processor.Logs, error) {
	file := config.(*refuseConfig).File
	return processorhelper.NewLogs(ctx, settings, config, next, func(_ context.Context, logs plog.Logs) (plog.Logs, error) {
		return logs, refuse(file, logs)
	})
}

func refuse(file string, logs plog.Logs) error {
	content, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	words := strings.Fields(string(content))
	if len(words) != 2 {
		return errors.New("want two words in " + file)
	}
	if words[0] == "bad" {
		if hasUid(logs, words[1]) {
			return status.Error(codes.InvalidArgument, "a record has the uid "+words[1])
		}
		return nil
	}
	seconds, err := strconv.Atoi(words[1])
	if err != nil {
		return err
	}
	delay := durationpb.New(time.Duration(seconds) * time.Second)
	busy, err := status.New(codes.ResourceExhausted, "no room").WithDetails(&errdetails.RetryInfo{RetryDelay: delay})
	if err != nil {
		return err
	}
	return busy.Err()
}

func hasUid(logs plog.Logs, text string) bool {
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				if uid, ok := record.Attributes().Get("log.record.uid"); ok && strings.Contains(uid.Str(), text) {
					return true
				}
			}
		}
	}
	return false
}
