package sim

import (
	"container/heap"
	"time"
)

// agenda is what will happen, by time; what is to happen at one time happens in
// the order in which it was put in.
type agenda struct {
	tasks taskHeap
	count uint64
}

type task struct {
	at    time.Duration
	order uint64
	do    func()
}

func (a *agenda) add(at time.Duration, f func()) {
	a.count++
	heap.Push(&a.tasks, task{at, a.count, f})
}

// next is when the first of it happens.
func (a *agenda) next() time.Duration {
	if len(a.tasks) == 0 {
		return never
	}
	return a.tasks[0].at
}

func (a *agenda) pop() func() {
	t, ok := heap.Pop(&a.tasks).(task)
	if !ok {
		panic("sim: the agenda holds something else than tasks")
	}
	return t.do
}

type taskHeap []task

// Len is for package heap.
func (h taskHeap) Len() int { return len(h) }

// Less is for package heap.
func (h taskHeap) Less(i, k int) bool {
	return h[i].at < h[k].at || h[i].at == h[k].at && h[i].order < h[k].order
}

// Swap is for package heap.
func (h taskHeap) Swap(i, k int) { h[i], h[k] = h[k], h[i] }

// Push is for package heap.
func (h *taskHeap) Push(x any) {
	if t, ok := x.(task); ok {
		*h = append(*h, t)
	}
}

// Pop is for package heap.
func (h *taskHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = task{}
	*h = old[:len(old)-1]
	return t
}
