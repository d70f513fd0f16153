package main

import "encoding/binary"

// maxScans is how many scans of a JPEG are decoded: each takes as long as a picture, and
// what programs write has about ten.
const maxScans = 100

// scans counts the scans of a JPEG the way the decoder comes upon them.
func scans(file []byte) (n int) {
	const stuffed, restart, restarts, end, scan, fill = 0x00, 0xd0, 8, 0xd9, 0xda, 0xff
	for i := 2; i+3 < len(file); {
		marker := file[i+1]
		switch {
		case file[i] != 0xff || marker == fill:
			i++
		case marker == stuffed || marker >= restart && marker < restart+restarts:
			i += 2
		case marker == end:
			return n
		default:
			if marker == scan {
				n++
			}
			i += 2 + int(binary.BigEndian.Uint16(file[i+2:]))
		}
	}
	return n
}

// losslessSize is the size that the VP8L chunk of a WebP has by itself, or 0, 0. The
// decoder compares it with the canvas only when it has decoded the chunk. Of a "VP8 "
// chunk it does so before.
func losslessSize(file []byte) (w, h int) {
	const riffHeader, chunkHeader, sizes = 12, 8, 5 // sizes: a magic byte, 14 bits of width - 1, 14 bits of height - 1
	for at := riffHeader; at+chunkHeader+sizes <= len(file); {
		size := int64(binary.LittleEndian.Uint32(file[at+4:]))
		if string(file[at:at+4]) == "VP8L" {
			bits := binary.LittleEndian.Uint32(file[at+chunkHeader+1:])
			return int(bits&0x3fff) + 1, int(bits>>14&0x3fff) + 1
		}
		if size > int64(len(file)) {
			return 0, 0
		}
		at += chunkHeader + int(size+size&1)
	}
	return 0, 0
}
