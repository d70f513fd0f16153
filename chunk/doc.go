// Package chunk splits one image into chunks ([Split], [Splitter]), puts it together from chunks
// in any order ([Assembler], [Buffer]), and computes its digest from the digests of its blocks of
// 1 MiB ([Tree], [Hasher], [BlockHasher]). [Ranges] is a set of byte ranges.
//
// It does I/O only through the readers and writers that it is given, and starts no goroutine.
// Unless its documentation says otherwise a value is not safe for concurrent use.
package chunk
