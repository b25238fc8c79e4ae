package session

import (
	"unicode/utf8"

	"github.com/surgetank/surgetank/internal/amqp/translate"
	"github.com/surgetank/surgetank/internal/amqp/wire"
)

// ConnectionInfo describes a connection in the management API.
type ConnectionInfo struct {
	Name             string         `json:"name"`
	UserProvidedName string         `json:"user_provided_name,omitempty"`
	User             string         `json:"user"`
	Vhost            string         `json:"vhost"`
	Protocol         string         `json:"protocol"`
	State            string         `json:"state"`
	PeerHost         string         `json:"peer_host"`
	PeerPort         int            `json:"peer_port"`
	Channels         int            `json:"channels"`
	ChannelMax       int            `json:"channel_max"`
	FrameMax         int            `json:"frame_max"`
	Heartbeat        int            `json:"timeout"`
	ConnectedAt      int64          `json:"connected_at"` // Unix milliseconds
	ClientProperties map[string]any `json:"client_properties"`
}

// Info describes an open connection. ok is false if the connection is not open.
func (c *Conn) Info() (info ConnectionInfo, ok bool) {
	user, vh := c.Identity()
	if user == nil || c.over.Load() {
		return info, false
	}
	info = ConnectionInfo{Name: c.Name, User: user.Name, Vhost: vh.Name, Protocol: "AMQP 0-9-1", State: "running",
		PeerHost: c.Peer.String(), PeerPort: int(c.port), Channels: c.channels.count(), ChannelMax: int(c.tuned.ChannelMax), FrameMax: int(c.tuned.FrameMax),
		Heartbeat: int(c.tuned.Heartbeat), ConnectedAt: c.since.UnixMilli(), ClientProperties: showTable(c.client)}
	info.UserProvidedName, _ = info.ClientProperties["connection_name"].(string)
	return info, true
}

// showTable converts a client's table to JSON values: scalars and nested tables.
func showTable(t wire.Table) map[string]any {
	m := map[string]any{}
	for name, v := range t.All() {
		if nested, ok := v.Table(); ok {
			m[string(name)] = showTable(nested)
		} else if b, ok := v.Bool(); ok {
			m[string(name)] = b
		} else if n, ok := v.Int(); ok {
			m[string(name)] = n
		} else if s := translate.ShowValue(v); utf8.ValidString(s) {
			m[string(name)] = s
		}
	}
	return m
}
