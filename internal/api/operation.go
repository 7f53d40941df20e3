package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"lockstep/internal/auth"
)

// about is what the documentation says of a route.
type about struct {
	id      string // the operation's id, unique
	summary string
	tag     string
	status  int // of success
}

// operation describes a route for the documentation.
func (a *API) operation(rt Route, doc about) huma.Operation {
	op := huma.Operation{
		OperationID: doc.id, Method: rt.Method, Path: rt.Path, Summary: doc.summary, Tags: []string{doc.tag},
		DefaultStatus: doc.status, MaxBodyBytes: a.maxBody,
		Metadata:  map[string]any{routeKey: rt},
		Responses: map[string]*huma.Response{"default": a.problemResponse("What went wrong: a problem document of RFC 9457")},
	}
	if rt.Need == auth.NeedNothing {
		op.Security = []map[string][]string{}
		return op
	}
	op.Description = "Needs the scope " + scopeText(rt) + "."
	op.Security = []map[string][]string{{"bearer": {}}}
	op.Responses["401"] = a.problemResponse("No valid API token")
	op.Responses["403"] = a.problemResponse("The token lacks the scope, or a page of another site made the call")
	return op
}

func (a *API) problemResponse(text string) *huma.Response {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(typeOf[Problem](), true, "Problem")
	return &huma.Response{Description: text, Content: map[string]*huma.MediaType{"application/problem+json": {Schema: schema}}}
}

// typed registers a route whose input and output huma reads, checks and documents.
func typed[I, O any](a *API, rt Route, doc about, f func(context.Context, *I) (*O, error)) {
	huma.Register(a.huma, a.operation(rt, doc), func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, a.explain(ctx, err)
		}
		return out, nil
	})
}

// typedAudited is typed for calls that change the control plane: what they did is
// recorded before the caller is answered.
func typedAudited[I, O any](a *API, rt Route, doc about, f func(context.Context, *I) (*O, note, error)) {
	typed(a, rt, doc, func(ctx context.Context, in *I) (*O, error) {
		out, n, err := f(ctx, in)
		if err != nil {
			return nil, err
		}
		a.record(ctx, rt, n)
		return out, nil
	})
}

// plain registers a route that reads and writes bytes itself; describe completes its
// documentation.
func (a *API) plain(rt Route, doc about, describe func(*huma.Operation), h http.HandlerFunc) {
	if !rt.Hidden {
		op := a.operation(rt, doc)
		for _, p := range pathParams(rt.Path) {
			op.Parameters = append(op.Parameters, &huma.Param{Name: p, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
		}
		describe(&op)
		if status := strconv.Itoa(doc.status); op.Responses[status] == nil {
			op.Responses[status] = &huma.Response{Description: http.StatusText(doc.status)}
		}
		a.huma.OpenAPI().AddOperation(&op)
	}
	a.register(rt, h)
}
