package transport

import "bytes"

// sniffLen is how many bytes of an image suffice to tell its media type.
const sniffLen = 16

// imageTypes are the image formats told by their first bytes. net/http has such
// a table too, but would bring its whole protocol along.
var imageTypes = []struct {
	magic, at8           string // at8: what stands at offset 8
	mediaType, extension string
}{
	{"\xff\xd8\xff", "", "image/jpeg", ".jpg"},
	{"\x89PNG\r\n\x1a\n", "", "image/png", ".png"},
	{"GIF8", "", "image/gif", ".gif"},
	{"BM", "", "image/bmp", ".bmp"},
	{"RIFF", "WEBP", "image/webp", ".webp"},
	{"II*\x00", "", "image/tiff", ".tiff"},
	{"MM\x00*", "", "image/tiff", ".tiff"},
	{"\x00\x00\x01\x00", "", "image/x-icon", ".ico"},
	{"\x00\x00\x00\x0cJXL \r\n\x87\n", "", "image/jxl", ".jxl"},
	{"\xff\x0a", "", "image/jxl", ".jxl"},
	{"\x00\x00\x00\x0cjP  ", "", "image/jp2", ".jp2"},
	{"\x00\x00\x00", "avif", "image/avif", ".avif"}, // ISO base media: size, "ftyp", brand
	{"\x00\x00\x00", "heic", "image/heic", ".heic"},
	{"\x00\x00\x00", "heix", "image/heic", ".heic"},
	{"\x00\x00\x00", "mif1", "image/heif", ".heif"},
}

const unknownType = "application/octet-stream"

// sniff tells the media type of an image from its first sniffLen bytes:
// "application/octet-stream" if it is none of those known.
func sniff(head []byte) string {
	for _, t := range imageTypes {
		if !bytes.HasPrefix(head, []byte(t.magic)) {
			continue
		}
		if t.at8 == "" || len(head) >= 12 && string(head[8:12]) == t.at8 {
			return t.mediaType
		}
	}
	return unknownType
}

// defaultName is the name of an image that came without one.
func defaultName(id ID, mediaType string) string {
	for _, t := range imageTypes {
		if t.mediaType == mediaType {
			return id.String() + t.extension
		}
	}
	return id.String() + ".bin"
}
