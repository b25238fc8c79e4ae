package door

import "context"

type userKey struct{}

// WithUser returns a context whose calls are in the name of a user. The broker records the name
// with a pause.
func WithUser(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, userKey{}, name)
}

// UserOf returns the name of the user of a call; "" if none is known.
func UserOf(ctx context.Context) string {
	if ctx == nil { // the broker refuses the call
		return ""
	}
	name, _ := ctx.Value(userKey{}).(string)
	return name
}
