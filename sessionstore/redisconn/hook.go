package redisconn

import (
	"context"
	"net"

	"github.com/redis/go-redis/v9"
)

// hook sees every command: it refuses them while Redis is down, wraps what
// means that Redis did not answer, and tells the monitor either way.
type hook struct {
	monitor *monitor
	metrics *metrics

	// node is the address of the cluster's node that this is the hook of, empty
	// for the hook of a client. It serves those who talk to nodes, too
	// (ForEachMaster, Watch). It wraps only what the cluster's client does not
	// put right by asking another node, and refuses only what is for a master
	// that is away: discovery of the nodes passes through it.
	node string

	cluster *redis.ClusterClient // that this is the hook of, or nil
}

var _ redis.Hook = hook{}

type noRefusal struct{}

// withoutRefusal marks the context of commands that find out whether Redis is
// back: they are sent even while it is down.
func withoutRefusal(ctx context.Context) context.Context {
	return context.WithValue(ctx, noRefusal{}, true)
}

// DialHook does nothing: Open's dialer sees all dials, of a cluster's nodes too.
func (h hook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

// ProcessHook refuses, runs or wraps one command.
func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := h.refuse(ctx, cmd)
		if err == nil {
			err = h.observe(ctx, h.process(ctx, cmd, next))
			if err == nil {
				err = h.away(cmd)
			}
		}
		cmd.SetErr(err)
		return err
	}
}

// process runs one command. What is published on one node of a cluster is
// heard on all.
func (h hook) process(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
	if h.cluster != nil {
		if node := h.monitor.nodes.Load().publisher(ctx, h.cluster, cmd); node != nil {
			return node.Process(ctx, cmd)
		}
	}
	return next(ctx, cmd)
}

// ProcessPipelineHook is ProcessHook for pipelines and transactions, each
// command of which has an error of its own.
func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := h.refuse(ctx, cmds...); err != nil {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
			return err
		}
		err := h.observe(ctx, next(ctx, cmds))
		away := h.away(cmds...)
		for _, cmd := range cmds {
			if away != nil && cmd.Err() == nil {
				cmd.SetErr(away)
				err = away
			}
			if !IsUnavailable(cmd.Err()) && h.classify(ctx, cmd.Err()) != classNone {
				cmd.SetErr(unavailable(cmd.Err()))
				h.monitor.doubt() // err may be another command's
			}
		}
		return err
	}
}

// refuse returns why the commands are not even sent, or nil.
func (h hook) refuse(ctx context.Context, cmds ...redis.Cmder) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Value(noRefusal{}) != nil {
		return nil
	}
	var refusal error
	if h.node != "" {
		refusal = h.away(cmds...)
	} else if reason := h.monitor.down.Load(); reason != nil {
		refusal = reason.err
	}
	if refusal != nil {
		h.metrics.refused()
	}
	return refusal
}

// away returns why the node of this hook is not there, or nil. It is asked
// after the commands, too: the node may have been missed since they passed,
// and what dialled it led to another, of which they were not meant to be.
func (h hook) away(cmds ...redis.Cmder) error {
	if h.node == "" || isHandshake(cmds) {
		return nil
	}
	return h.monitor.nodes.Load().refusal(h.node)
}

// isHandshake tells what go-redis sends on a new connection. Of those for a
// master that is away only subscriptions get so far: see masters.standIn.
func isHandshake(cmds []redis.Cmder) bool {
	for _, cmd := range cmds {
		switch cmd.Name() {
		case "hello", "auth", "select", "client", "readonly":
		default:
			return false
		}
	}
	return true
}

// observe wraps err if it means that Redis did not answer.
func (h hook) observe(ctx context.Context, err error) error {
	cls := h.classify(ctx, err)
	if cls == classNone {
		if err == nil || ctx.Err() == nil {
			h.monitor.answered()
		}
		return err
	}
	if IsUnavailable(err) {
		return err // seen already: a connection's handshake passes through here as well
	}
	h.metrics.failed(cls)
	if cls != classClosed {
		h.monitor.doubt()
	}
	return unavailable(err)
}

func (h hook) classify(ctx context.Context, err error) class {
	cls := classify(ctx, err)
	if h.node != "" && cls == classCluster {
		return classNone
	}
	return cls
}
