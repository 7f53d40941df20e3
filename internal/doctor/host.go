package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"lockstep/internal/config"
	"lockstep/internal/pgdb/cluster"
)

// machine are the checks of this machine and process.
func (o Options) machine() group {
	return group{target: "this machine", checks: []check{
		{id: "open_files", run: openFiles,
			why: "the stream keeps files open, each worker that waits holds a connection, and each is one descriptor"},
		{id: "encryption_key", run: o.encryptionKey,
			why: "LOCKSTEP_KEY encrypts the secrets that Lockstep keeps at rest"},
	}}
}

func openFiles(context.Context) ([]verdict, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return nil, fmt.Errorf("the limit of open files: %w", err)
	}
	remedy := "# in the shell before the start: ulimit -n 65536; under systemd:\nLimitNOFILE=65536"
	switch {
	case l.Cur < 256:
		return one(fail(remedy, "at most %d files may be open", l.Cur))
	case l.Cur < 4096:
		return one(warn(remedy, "at most %d files may be open", l.Cur))
	}
	return one(pass("%d files may be open", l.Cur))
}

const newKey = "export LOCKSTEP_KEY=$(openssl rand -base64 32) # and keep it in a safe place"

func (o Options) encryptionKey(context.Context) ([]verdict, error) {
	key := o.Config.Key.Reveal()
	if key == "" {
		return one(skip("LOCKSTEP_KEY is not set, and nothing in this configuration needs it"))
	}
	distinct := map[byte]bool{}
	for _, b := range []byte(key) {
		distinct[b] = true
	}
	if len(distinct) < 16 { // 32 random bytes have fewer in one of 10^12 cases
		return one(warn(newKey, "LOCKSTEP_KEY is not random: it has %d different bytes only", len(distinct)))
	}
	return one(pass("LOCKSTEP_KEY is set"))
}

// listen are the checks of the HTTP API's address.
func (o Options) listen() group {
	return group{target: "http api " + o.Config.Listen, checks: []check{
		{id: "listen", run: o.reachable,
			why: "whoever reaches the address with a token, or without one where there is none, reads every change"},
		{id: "port", run: o.port,
			why: "a node that cannot listen does not start"},
		{id: "tokens", run: o.tokens,
			why: "a short token can be guessed"},
	}}
}

func (o Options) reachable(context.Context) ([]verdict, error) {
	if err := o.Config.CheckListen(o.Config.Listen); err != nil {
		return one(fail("# in the configuration:\ntokens:\n  - {name: admin, token: \"${LOCKSTEP_TOKEN}\", scopes: [admin]}\n# or listen: 127.0.0.1:7300", "%s", plainError(err)))
	}
	loopback, err := config.Loopback(o.Config.Listen)
	switch {
	case err != nil:
		return nil, err
	case !loopback:
		return one(warn("# listen on 127.0.0.1 and put a proxy with TLS in front",
			"%s can be reached from other machines, and tokens travel there unencrypted unless a proxy adds TLS", o.Config.Listen))
	case len(o.Config.Tokens) == 0:
		return one(pass("only this machine reaches it; without tokens everybody on it may do everything"))
	}
	return one(pass("only this machine reaches it"))
}

// port looks at the address without listening on it: a node that starts at that
// moment would find it taken.
func (o Options) port(ctx context.Context) ([]verdict, error) {
	host, port, err := net.SplitHostPort(o.Config.Listen)
	if err != nil {
		return nil, err
	}
	number, _ := strconv.Atoi(port) // the configuration was checked
	ip := net.ParseIP(host)
	local := "127.0.0.1"
	if ip != nil && !ip.IsUnspecified() {
		local = host
	}
	if ip != nil && !ip.IsUnspecified() && !ip.IsLoopback() && !ours(ip) {
		return one(fail("# in the configuration: an address of this machine, see\nip -brief address", "%s is not an address of this machine", host))
	}
	if number == 0 {
		return one(pass("any free port"))
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(local, port))
	if err == nil {
		_ = conn.Close()
		if o.Online || o.nodeHolds() {
			return one(pass("the port is in use, by the node that runs here"))
		}
		return one(lacking("# this shows who listens:\nss -ltnp 'sport = :"+port+"'\n# stop it, or choose another port in the configuration: listen", "port %s is in use by another program", port))
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil, err
	}
	if first := firstOpenPort(); number < first && os.Geteuid() != 0 {
		return one(warn("setcap cap_net_bind_service=+ep \"$(command -v lockstep)\"\n# or choose a port above in the configuration: listen", "ports below %d may need privileges", first))
	}
	return one(pass("the port is free"))
}

func ours(ip net.IP) bool {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return true // not known: nothing to complain about
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
			return true
		}
	}
	return false
}

// firstOpenPort is the lowest port that everybody may listen on.
func firstOpenPort() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if n, e := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && e == nil {
		return n
	}
	return 1024
}

func (o Options) tokens(context.Context) ([]verdict, error) {
	var short []string
	for _, t := range o.Config.Tokens {
		if len(t.Token.Reveal()) < 16 {
			short = append(short, t.Name)
		}
	}
	if len(short) > 0 {
		return one(warn("export LOCKSTEP_TOKEN=$(openssl rand -hex 32)", "tokens of fewer than 16 characters: %s", few(short)))
	}
	return one(pass("%d in the configuration", len(o.Config.Tokens)))
}

// private are the checks of the Postgres that Lockstep runs itself, when a database
// has no URL.
func (o Options) private() (g group, needed bool) {
	for _, d := range o.Config.Databases {
		needed = needed || d.URL == ""
	}
	dir, err := filepath.Abs(filepath.Join(o.Config.DataDir, "postgres"))
	if err != nil {
		dir = filepath.Join(o.Config.DataDir, "postgres")
	}
	p := &privatePostgres{Options: o, dir: dir}
	return group{target: "private postgres", checks: []check{
		{id: "binaries", run: p.binaries, needed: true,
			why: "a database without a URL is run by Lockstep, with the Postgres that this machine has"},
		{id: "binaries_version", run: p.sameVersion,
			why: "a data directory can be used by the major version of Postgres only that made it"},
		{id: "binaries_access", run: p.passable,
			why: "under root Postgres runs as another user, who has to get to its data and programs"},
	}}, needed
}

type privatePostgres struct {
	Options
	dir, bin string
	major    int
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

func (p *privatePostgres) binaries(ctx context.Context) ([]verdict, error) {
	bin, err := cluster.FindBin(p.Config.PGBin)
	if err != nil {
		return one(lacking("apt-get install postgresql\n# or name the directory of initdb and postgres:\nexport LOCKSTEP_PG_BIN=/usr/lib/postgresql/17/bin\n# or give every database a URL in the configuration", "%s", plainError(err)))
	}
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s/postgres --version: %w", bin, err)
	}
	if m := versionPattern.FindStringSubmatch(string(out)); m != nil {
		p.major, _ = strconv.Atoi(m[1]) // digits
	}
	p.bin = bin
	return one(pass("PostgreSQL %d in %s", p.major, bin))
}

func (p *privatePostgres) sameVersion(context.Context) ([]verdict, error) {
	text, err := os.ReadFile(filepath.Join(p.dir, "data", "PG_VERSION"))
	made := strings.TrimSpace(string(text))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return one(pass("there is no data yet"))
	case err != nil:
		return nil, err
	case made != strconv.Itoa(p.major):
		return one(lacking("export LOCKSTEP_PG_BIN=/usr/lib/postgresql/"+made+"/bin\n# or move the data away, to start with an empty database:\nmv "+p.dir+" "+p.dir+".old",
			"the data in %s was made by PostgreSQL %s, and this machine has %d", p.dir, made, p.major))
	}
	return one(pass("the data was made by PostgreSQL %s", made))
}

// passable looks for a directory that Postgres' user cannot pass through.
func (p *privatePostgres) passable(context.Context) ([]verdict, error) {
	if os.Geteuid() != 0 {
		return one(pass("Postgres runs as this user"))
	}
	name, uid, gid := "nobody", 65534, 65534
	for _, candidate := range []string{"nobody", "postgres"} { // the last one found wins
		if u, err := user.Lookup(candidate); err == nil {
			name = candidate
			uid, _ = strconv.Atoi(u.Uid) // numbers on every system with Postgres
			gid, _ = strconv.Atoi(u.Gid)
		}
	}
	for _, path := range []string{filepath.Dir(p.dir), p.bin} {
		for dir := nearest(path); ; dir = filepath.Dir(dir) {
			info, err := os.Stat(dir)
			if err != nil {
				return nil, err
			}
			if !mayPass(info, uid, gid) {
				return one(lacking("chmod o+x "+dir+"\n"+otherDir, "Postgres will run as %s, to whom %s is closed", name, dir))
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return one(pass("Postgres will run as %s, who can reach its data and programs", name))
}

func mayPass(info fs.FileInfo, uid, gid int) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case ok && int(st.Uid) == uid:
		return mode&0o100 != 0
	case ok && int(st.Gid) == gid:
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

// privateURL is the address of a private database that runs now; empty: none does.
func (o Options) privateURL(name string) string {
	if u := o.URLs[name]; u != "" {
		return u
	}
	if !o.nodeHolds() {
		return ""
	}
	dir := filepath.Join(o.Config.DataDir, "postgres")
	port, err1 := os.ReadFile(filepath.Join(dir, "port"))
	password, err2 := os.ReadFile(filepath.Join(dir, "password"))
	if err1 != nil || err2 != nil {
		return ""
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", strings.TrimSpace(string(password))),
		Host: net.JoinHostPort("127.0.0.1", strings.TrimSpace(string(port))), Path: "/" + name, RawQuery: "sslmode=disable",
	}
	return u.String()
}
