package transport

import "time"

// An Image is what is sent: metadata and a Body that each Send opens anew, so
// one *Image may be in many concurrent Sends. Do not modify it meanwhile.
type Image struct {
	// Name is the image's name for the receiver, at most 255 bytes of UTF-8 and
	// never a path. Empty: the base name of a File body, else a name made of
	// the ID and the media type.
	Name string
	// MediaType is for example "image/jpeg"; empty: sniffed from the bytes.
	MediaType string
	// Source is the camera or channel it comes from; it helps a receiver to find
	// a partial image again after the sender's address has changed.
	Source string
	// Captured is when the picture was taken; zero: unknown.
	Captured time.Time
	// Meta is whatever else the application wants to say, at most
	// [Limits].MaxMeta bytes of keys and values.
	Meta map[string]string
	// Body is the content.
	Body Body
}
