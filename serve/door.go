package serve

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"longtake/api"
)

// door decides who may come in: by the Host and Origin that a request names, and by its token or cookie.
type door struct {
	tokens  [][sha256.Size]byte
	hosts   []string
	origins []string
	key     []byte // signs cookies; new in every run

	limits  Limits
	mu      sync.Mutex
	buckets map[string]*bucket
}

// cookieName and cookieLife are of the page's cookie, which stands for a token without showing it.
const (
	cookieName = "longtake"
	cookieLife = time.Hour
)

func newDoor(tokens, hosts, origins []string, limits Limits) *door {
	d := &door{hosts: hosts, origins: origins, key: randomKey(), limits: limits, buckets: map[string]*bucket{}}
	for _, t := range tokens {
		d.tokens = append(d.tokens, sha256.Sum256([]byte(t)))
	}
	return d
}

// knownHost reports whether a request names this server: by the address it came to, by localhost on loopback, or by a name that
// was listed. Any other name may be a page's own that its owner has pointed here (DNS rebinding).
func (d *door) knownHost(r *http.Request) bool {
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(strings.ToLower(name), "["), "]")
	if slices.ContainsFunc(d.hosts, func(h string) bool { return strings.EqualFold(h, name) }) {
		return true
	}
	local, ok := localAddr(r)
	if !ok {
		return false
	}
	if name == "localhost" {
		return local.IsLoopback()
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap() == local
}

func localAddr(r *http.Request) (netip.Addr, bool) {
	a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return netip.Addr{}, false
	}
	p, err := netip.ParseAddrPort(a.String())
	return p.Addr().Unmap(), err == nil
}

// knownOrigin reports whether the page that sent a request, if any did, is our own or listed.
func (d *door) knownOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		// Browsers name other sites' pages here even where they send no Origin; following a link is all these may do.
		site := r.Header.Get("Sec-Fetch-Site")
		navigates := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Method == http.MethodGet && r.URL.Path == "/"
		return site == "" || site == "same-origin" || site == "none" || navigates
	}
	if slices.Contains(d.origins, origin) {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && strings.EqualFold(u.Host, r.Host)
}

// admit returns who a request comes from: "" where no token is needed, else a name for the token.
func (d *door) admit(r *http.Request) (who string, ok bool) {
	if len(d.tokens) == 0 {
		return "", true
	}
	if token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); found {
		return d.known(token)
	}
	if c, err := r.Cookie(cookieName); err == nil {
		return d.open(c.Value)
	}
	return "", false
}

// known compares a token with all that there are, in a time that does not depend on where they differ.
func (d *door) known(token string) (who string, ok bool) {
	sum := sha256.Sum256([]byte(token))
	found := -1
	for i := range d.tokens {
		if subtle.ConstantTimeCompare(sum[:], d.tokens[i][:]) == 1 {
			found = i
		}
	}
	return strconv.Itoa(found), found >= 0
}

// seal makes the value of a cookie for who.
func (d *door) seal(who string, until time.Time) string {
	text := who + "." + strconv.FormatInt(until.Unix(), 10)
	return text + "." + d.sign(text)
}

func (d *door) sign(text string) string {
	mac := hmac.New(sha256.New, d.key)
	mac.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// open returns whom a cookie stands for.
func (d *door) open(value string) (who string, ok bool) {
	i := strings.LastIndexByte(value, '.')
	if i < 0 || !hmac.Equal([]byte(d.sign(value[:i])), []byte(value[i+1:])) {
		return "", false
	}
	who, until, _ := strings.Cut(value[:i], ".")
	seconds, err := strconv.ParseInt(until, 10, 64)
	return who, err == nil && time.Now().Unix() < seconds
}

// pace returns 0, or how long a caller must wait before the next request.
func (d *door) pace(who string) time.Duration {
	d.mu.Lock()
	b, ok := d.buckets[who]
	if !ok { // at most one a token
		b = newBucket(d.limits.Requests, d.limits.Burst)
		d.buckets[who] = b
	}
	d.mu.Unlock()
	return b.take()
}

// guard is in front of every request.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.contain(w, r)
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Content-Security-Policy", contentPolicy)
		switch {
		case !s.door.knownHost(r):
			s.metrics.refusals.WithLabelValues("host").Inc()
			s.fail(w, refuse(http.StatusForbidden, api.Forbidden, "this server does not answer to that host name (--host lists more)"))
		case !s.door.knownOrigin(r):
			s.metrics.refusals.WithLabelValues("origin").Inc()
			s.fail(w, refuse(http.StatusForbidden, api.Forbidden, "pages of that origin may not call this server (--origin lists more)"))
		case r.Method == http.MethodOptions && slices.Contains(s.door.origins, r.Header.Get("Origin")):
			s.allow(w, r)
			h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			w.WriteHeader(http.StatusNoContent)
		default:
			s.allow(w, r)
			next.ServeHTTP(w, r)
		}
	})
}

// contentPolicy lets the page use nothing but what comes with it.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// allow names a listed origin, so that its pages may read the answer. Without a list nothing is said: CORS is off.
func (s *Server) allow(w http.ResponseWriter, r *http.Request) {
	if origin := r.Header.Get("Origin"); slices.Contains(s.door.origins, origin) {
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Vary", "Origin")
	}
}

// contain turns a panic of a handler into an error of that request.
func (s *Server) contain(w http.ResponseWriter, r *http.Request) {
	fault := recover()
	if fault == nil {
		return
	}
	if fault == http.ErrAbortHandler {
		panic(fault)
	}
	s.metrics.faults.Inc()
	s.logger.Error("fault", "method", r.Method, "pattern", r.Pattern, "fault", fmt.Sprint(fault))
	s.fail(w, refuse(http.StatusInternalServerError, api.Internal, "internal error"))
}

// login exchanges a token, or a cookie that still counts, for a fresh cookie.
func (s *Server) login(w http.ResponseWriter, r *http.Request, who string) error {
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: s.door.seal(who, time.Now().Add(cookieLife)), Path: "/", HttpOnly: true,
		SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil, MaxAge: int(cookieLife.Seconds())})
	s.write(w, http.StatusOK, api.Login{ExpiresIn: int(cookieLife.Seconds())})
	return nil
}
