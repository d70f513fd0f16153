package transport

import "time"

// An Image is what is sent: metadata and a Body. Each Send opens the Body anew, so that one
// *Image may be in many concurrent Sends. Do not modify it meanwhile.
type Image struct {
	// Name is the image's name for the receiver: at most 255 bytes of UTF-8, never a path. Empty
	// means the base name of a File body, else a name made of the ID and the media type.
	Name string
	// MediaType is for example "image/jpeg"; empty: detected from the first bytes.
	MediaType string
	// Source is the camera or channel that the image comes from. It also lets a receiver find a
	// partial image again after the sender's address has changed. A receiver over TCP or UDP
	// fills in the sender's IP address if the device protocol has no room for it.
	Source string
	// Captured is when the picture was taken; zero: unknown.
	Captured time.Time
	// Meta is whatever else the application wants to say: keys and values of at most
	// [Limits].MaxMeta bytes together, 16 KiB by default.
	Meta map[string]string
	// Body is the content.
	Body Body
}
