package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// newForwardCommand makes the part that lets programs of the machine reach a server inside a network namespace:
// it listens where it is started and connects where the server is, so that neither network has to be changed.
func newForwardCommand() *cobra.Command {
	var listen, namespace, target string
	command := &cobra.Command{
		Use:          "forward --listen HOST:PORT --netns FILE --target HOST:PORT",
		Short:        "Forward TCP connections into a network namespace",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			listener, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			for {
				client, err := listener.Accept()
				if err != nil {
					return err
				}
				go forward(client.(*net.TCPConn), namespace, target)
			}
		},
	}
	command.Flags().StringVar(&listen, "listen", "", "address to listen on")
	command.Flags().StringVar(&namespace, "netns", "", "file of the network namespace to connect in")
	command.Flags().StringVar(&target, "target", "", "address to connect to, an IP and a port")
	return command
}

func forward(client *net.TCPConn, namespace, target string) {
	defer client.Close()
	server, err := dialIn(namespace, target)
	if err != nil {
		fmt.Fprintln(os.Stderr, "forward:", err)
		return
	}
	defer server.Close()
	done := make(chan struct{}, 2)
	pipe := func(to, from *net.TCPConn) {
		io.Copy(to, from)
		to.CloseWrite()
		done <- struct{}{}
	}
	go pipe(server, client)
	go pipe(client, server)
	<-done
	<-done
}

// dialIn connects from a thread of its own. The thread stays locked and so ends with its goroutine: it would be
// in the wrong namespace for anything else. Connecting to a numeric address starts no other goroutine's socket call.
func dialIn(namespace, target string) (*net.TCPConn, error) {
	type result struct {
		connection *net.TCPConn
		err        error
	}
	answer := make(chan result)
	go func() {
		runtime.LockOSThread()
		connection, err := func() (*net.TCPConn, error) {
			file, err := os.Open(namespace)
			if err != nil {
				return nil, err
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return nil, fmt.Errorf("enter %s: %w", namespace, err)
			}
			address, err := net.ResolveTCPAddr("tcp", target)
			if err != nil {
				return nil, err
			}
			return net.DialTCP("tcp", nil, address)
		}()
		answer <- result{connection, err}
	}()
	got := <-answer
	return got.connection, got.err
}
