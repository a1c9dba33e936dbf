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

	// node: the hook of one node of a cluster, for those who talk to nodes
	// (ForEachMaster, Watch). It wraps only what the cluster's client does not
	// put right by asking another node, and refuses nothing: discovery of the
	// nodes passes through it.
	node bool
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
		err := h.refuse(ctx)
		if err == nil {
			err = h.observe(ctx, next(ctx, cmd))
		}
		cmd.SetErr(err)
		return err
	}
}

// ProcessPipelineHook is ProcessHook for pipelines and transactions, each
// command of which has an error of its own.
func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := h.refuse(ctx); err != nil {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
			return err
		}
		err := h.observe(ctx, next(ctx, cmds))
		for _, cmd := range cmds {
			if h.classify(ctx, cmd.Err()) != classNone {
				cmd.SetErr(unavailable(cmd.Err()))
				h.monitor.doubt() // err may be another command's
			}
		}
		return err
	}
}

// refuse returns why the command is not even sent, or nil.
func (h hook) refuse(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if reason := h.monitor.down.Load(); reason != nil && !h.node && ctx.Value(noRefusal{}) == nil {
		h.metrics.refused()
		return reason.err
	}
	return nil
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
	if h.node && cls == classCluster {
		return classNone
	}
	return cls
}
