package tempcache

import (
	"longtake/attention"
	"longtake/compute"
	"longtake/kvcache"
)

// Watching returns an attention maker whose policies show the queries of self attention to the cache, for the options of Policy
// that need them, before they do what inner's do.
func Watching(inner attention.Maker) attention.Maker { return watching{inner} }

type watching struct{ attention.Maker }

// New makes inner's policy.
func (w watching) New(dev compute.Device, dq compute.Queue, s kvcache.Shape) (attention.Policy, error) {
	p, err := w.Maker.New(dev, dq, s)
	if err != nil {
		return nil, err
	}
	return watcher{p}, nil
}

type watcher struct{ attention.Policy }

// Attend shows the query and attends.
func (w watcher) Attend(dq compute.Queue, at attention.Site, dst, query compute.Tensor, kv kvcache.View) {
	if kv.Watcher != nil && at.Kind == attention.Self {
		kv.Watcher.Watch(dq, query)
	}
	w.Policy.Attend(dq, at, dst, query, kv)
}
