// Package chunk is about one image and its chunks: it splits a source ([Split],
// [Splitter]), keeps sets of byte ranges ([Ranges]), puts an image together from
// chunks in any order ([Assembler], [Buffer]), and computes its digest from the
// digests of its blocks ([Tree], [Hasher], [BlockHasher]).
//
// It does no I/O but through the readers and writers that it is given and starts
// no goroutine. Unless its documentation says otherwise a value has one owner: it
// is not safe for concurrent use.
package chunk
