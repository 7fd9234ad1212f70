//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package weights

// mapFile reads the whole file.
func mapFile(path string) ([]byte, func() error, error) {
	h, size, err := openFile(path)
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	return readFile(h, size)
}
