package serve

import (
	"net/http"
	"net/http/httptest"
)

type recorded struct {
	*httptest.ResponseRecorder
	request *http.Request
}

func newRecorder(method, path string) recorded {
	return recorded{httptest.NewRecorder(), httptest.NewRequest(method, path, nil)}
}
