// Package pull keeps a mirror in step with an API.
package pull
