package transport

import "slices"

const defaultReceipts = 65536

// receipts remembers the latest receipts, at most max of them. The owner
// serialises the calls.
type receipts struct {
	max    int
	byID   map[ID]Receipt
	order  []ID              // oldest first
	floors map[uint64]uint64 // by sender instance: counters below are forgotten
	raised int               // floors raised since the last purge
	left   int               // receipts that were left then
}

// newReceipts makes room for limit receipts; 0 or less: the default.
func newReceipts(limit int) receipts {
	if limit <= 0 {
		limit = defaultReceipts
	}
	return receipts{max: limit, byID: make(map[ID]Receipt), floors: make(map[uint64]uint64)}
}

func (r *receipts) get(id ID) (Receipt, bool) {
	receipt, ok := r.byID[id]
	return receipt, ok && !r.forgotten(id)
}

// add remembers a receipt and forgets the oldest if there are too many.
func (r *receipts) add(receipt Receipt) {
	if _, ok := r.byID[receipt.ID]; !ok {
		r.order = append(r.order, receipt.ID)
	}
	r.byID[receipt.ID] = receipt
	for len(r.order) > r.max {
		delete(r.byID, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *receipts) remove(id ID) {
	if _, ok := r.byID[id]; ok {
		delete(r.byID, id)
		r.order = slices.DeleteFunc(r.order, func(o ID) bool { return o == id })
	}
}

// forget drops the receipts of an instance below a counter. Their memory is freed
// when as many floors have been raised as receipts were left the last time, so
// that the cost of each call is constant on average.
func (r *receipts) forget(instance, below uint64) {
	if below <= r.floors[instance] {
		return
	}
	r.floors[instance] = below
	if r.raised++; r.raised > r.left+64 {
		r.purge()
	}
}

func (r *receipts) forgotten(id ID) bool { return id.Counter() < r.floors[id.Instance()] }

// purge frees the memory of forgotten receipts, and of the floors of instances
// that have no others.
func (r *receipts) purge() {
	r.raised = 0
	floors := make(map[uint64]uint64)
	order := make([]ID, 0, len(r.order))
	for _, id := range r.order {
		if r.forgotten(id) {
			delete(r.byID, id)
			continue
		}
		order = append(order, id)
		if floor, ok := r.floors[id.Instance()]; ok {
			floors[id.Instance()] = floor
		}
	}
	r.order, r.floors, r.left = order, floors, len(order)
}
