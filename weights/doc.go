// Package weights reads model weights. A safetensors file (or a sharded "*.index.json" with its files, or bytes embedded
// in the binary) enters; compute.Host tensors that point into the file leave, nothing is copied or converted.
//
// Files are hostile until proven otherwise: every length, offset, shape and type is checked before a tensor is handed out,
// and a bad file is one line that says which file, which tensor, what is wrong and what to do (see FormatError). The format
// is that of https://github.com/huggingface/safetensors: 8 bytes little-endian header length, a JSON object of names, then
// the elements, little-endian, row-major, without holes.
//
// A Placer takes tensors from any Source to a device; an Audit in between collects everything missing, unexpected or of a
// wrong shape, so that one error lists all. Write makes files for tests and tools.
package weights
