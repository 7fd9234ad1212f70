// Package video carries decoded pictures out of the engine and into files.
//
// What enters: [Frame] values, 8-bit RGB pictures as the decoder leaves them, one at a time and in
// order. What leaves: a file or a folder of files, written by a [Writer]. This package holds the
// frame, its conversions, the frame rate, and the formats that need nothing but the standard
// library (y4m, GIF, PNG folder, and MP4 by way of an ffmpeg program found on PATH). WebM lives in
// video/webm because it needs a VP8 encoder; video/file picks a format by extension; video/term
// draws in a terminal; video/metric compares frames.
//
// # Outputs are atomic
//
// Every writer of this package works under a hidden temporary name beside its target (for example
// .clip.1f3a9c.part.webm) and renames it when Close succeeds. After an error, a cancelled context
// or Abort neither the target nor the temporary file is left; a file that was there before stays
// as it was. The exceptions are outputs that cannot be taken back: a pipe, a device or standard
// output receives bytes as they are made.
//
// # Colour
//
// RGB is taken as full-range sRGB-encoded values and is never gamma-converted here. Conversions to
// Y'CbCr use the BT.601 matrix with limited ("video", 16-235 and 16-240) range, which VP8
// prescribes and y4m readers assume; chroma of 4:2:0 is the mean of each 2x2 square, so its sample
// sits in the middle of the square (the siting y4m calls 420jpeg). The MP4 writer leaves the
// conversion to ffmpeg and asks for BT.709 limited, tagged in the file.
//
// # Time
//
// Frame i is shown from i/fps to (i+1)/fps. Timestamps are always computed from the frame number
// as an exact fraction and rounded once, so rounding errors never add up (see [Rate.Ticks]).
// Writers count the frames they are given; Frame.Index is for the caller and does not move
// timestamps.
package video
