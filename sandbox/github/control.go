package github

import (
	"fmt"
	"net/http"

	"lockstep/sandbox"
)

// controls are the control routes that only this API has.
func (s *Sandbox) controls() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"tokens": func(w http.ResponseWriter, r *http.Request) {
			var ask struct {
				Token  string
				Revoke bool
				Only   []string
			}
			control(w, r, &ask, func() error {
				if ask.Revoke {
					s.RevokeToken(ask.Token)
					return nil
				}
				s.AllowToken(ask.Token, ask.Only...)
				return nil
			})
		},
		"lateness": func(w http.ResponseWriter, r *http.Request) {
			s.mu.RLock()
			late := s.lateness
			s.mu.RUnlock()
			control(w, r, &late, func() error { s.SetLateness(late); return nil })
		},
		"access": func(w http.ResponseWriter, r *http.Request) {
			var ask struct {
				Repository string
				Hidden     bool
			}
			control(w, r, &ask, func() error {
				change := s.Show
				if ask.Hidden {
					change = s.Hide
				}
				if !change(ask.Repository) {
					return fmt.Errorf("access: there is no repository %q; write owner/name", ask.Repository)
				}
				return nil
			})
		},
		"app": s.controlApp,
	}
}

// controlApp makes the App a key, and says what became of its installation.
func (s *Sandbox) controlApp(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		Key          bool
		Expire       bool
		Installation Installation
	}
	out := map[string]any{"app_id": AppID, "client_id": AppClientID, "installation_id": InstallationID}
	err := sandbox.ReadBody(r, &ask)
	if err == nil && r.Method == http.MethodPost {
		switch ask.Installation {
		case "":
		case Installed, Suspended, Removed:
			s.SetInstallation(ask.Installation)
		default:
			err = fmt.Errorf("app: installation %q: write installed, suspended or removed", ask.Installation)
		}
		if ask.Expire {
			s.ExpireTokens()
		}
		if ask.Key && err == nil {
			out["private_key"], err = s.NewAppKey()
		}
	}
	if err != nil {
		sandbox.WriteJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	sandbox.WriteJSON(w, http.StatusOK, out)
}

// control reads the body of a POST and applies it.
func control(w http.ResponseWriter, r *http.Request, ask any, apply func() error) {
	err := sandbox.ReadBody(r, ask)
	if err == nil && r.Method == http.MethodPost {
		err = apply()
	}
	if err != nil {
		sandbox.WriteJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	sandbox.WriteJSON(w, http.StatusOK, ask)
}
