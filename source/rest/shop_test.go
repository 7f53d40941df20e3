package rest_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lockstep/locksteptest"
	"lockstep/source"
	"lockstep/source/rest"
)

// shop is the API of the tutorial.
type shop struct {
	mu     sync.Mutex
	orders []object
	n      int
}

func (a *shop) order() {
	a.n++
	now := time.Now().UTC().Format(time.RFC3339Nano)
	a.orders = append(a.orders, object{"id": a.n, "status": "open", "total": json.RawMessage("12.50"), "created_at": now, "updated_at": now})
}

// change places an order, edits one and deletes one.
func (a *shop) change(testing.TB) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.order()
	for i, status := range map[int]string{a.n % len(a.orders): "paid", (a.n * 7) % len(a.orders): "deleted"} {
		a.orders[i]["status"], a.orders[i]["updated_at"] = status, time.Now().UTC().Format(time.RFC3339Nano)
	}
}

func (a *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer shop-token-1" {
		w.WriteHeader(401)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/api")
	switch parts := strings.Split(path, "/"); {
	case path == "/me":
		write(w, object{"shop": object{"id": "s1"}})
	case path == "/orders":
		a.list(w, r)
	case path == "/shipping-methods":
		w.Header().Set("ETag", `"1"`)
		write(w, object{"data": []object{{"id": "post"}, {"id": "bike"}}})
	case len(parts) == 4 && parts[3] == "lines":
		id, _ := strconv.Atoi(parts[2])
		data := []object{}
		for i := range id % 3 {
			data = append(data, object{"position": i})
		}
		write(w, object{"data": data})
	case len(parts) == 3 && parts[1] == "orders":
		id, err := strconv.Atoi(parts[2])
		if err != nil || id < 1 || id > len(a.orders) {
			w.WriteHeader(404)
			return
		}
		write(w, a.orders[id-1])
	default:
		w.WriteHeader(404)
	}
}

func (a *shop) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	found := slices.Clone(a.orders)
	if q.Get("sort") == "updated_at" {
		slices.SortStableFunc(found, func(x, y object) int { return cmp.Compare(x["updated_at"].(string), y["updated_at"].(string)) })
	}
	if since := q.Get("updated_since"); since != "" {
		found = slices.DeleteFunc(found, func(o object) bool { return o["updated_at"].(string) < since })
	}
	page, _ := strconv.Atoi(q.Get("page"))
	size, _ := strconv.Atoi(q.Get("per_page"))
	page = max(page, 1)
	answer := object{"data": append([]object{}, found[min(len(found), (page-1)*size):min(len(found), page*size)]...), "next": nil}
	if page*size < len(found) {
		q.Set("page", strconv.Itoa(page+1))
		answer["next"] = "/api/orders?" + q.Encode()
	}
	write(w, answer)
}

func (a *shop) truth(t testing.TB, collection string) map[string]json.RawMessage {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string]json.RawMessage{}
	for _, o := range a.orders {
		if o["status"] == "deleted" {
			continue
		}
		id := fmt.Sprint(o["id"])
		if collection == "order" {
			data, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			out[id] = data
			continue
		}
		for i := range o["id"].(int) % 3 {
			out[fmt.Sprintf("%s-%d", id, i)] = nil
		}
	}
	if collection == "shipping_method" {
		return map[string]json.RawMessage{"post": nil, "bike": nil}
	}
	return out
}

func readShop(t testing.TB) *rest.Spec {
	t.Helper()
	data, err := os.ReadFile("../../examples/own-api/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := rest.Parse("shop.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func TestTheShopOfTheTutorialKeepsTheContract(t *testing.T) {
	t.Parallel()
	api := &shop{}
	for range 180 {
		api.order()
	}
	f := serve(t, api.ServeHTTP)
	spec := readShop(t)
	locksteptest.TestSource(t, locksteptest.Subject{
		New: func(t testing.TB, transport http.RoundTripper, limiter source.Limiter) source.Source {
			s, err := rest.New(spec, rest.Options{BaseURL: f.URL + "/api", Credential: map[string]string{"token": "shop-token-1"}, Transport: transport, Limiter: limiter})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Truth:   api.truth,
		Change:  api.change,
		Secrets: []string{"shop-token-1"},
	})
}
