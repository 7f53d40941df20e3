# Plug or Phoenix, no package. headers: conn.req_headers. body: the bytes that came,
# before a parser had them (a body reader of Plug.Parsers keeps them). secret: "whsec_…"
defmodule Lockstep.Signature do
  def valid?(headers, body, "whsec_" <> secret) do
    headers = Map.new(headers)
    id = headers["webhook-id"]
    timestamp = headers["webhook-timestamp"]
    signed = "#{id}.#{timestamp}.#{body}"
    mac = :crypto.mac(:hmac, :sha256, Base.decode64!(secret), signed)
    want = "v1," <> Base.encode64(mac)

    recent?(timestamp) and
      headers |> Map.get("webhook-signature", "") |> String.split() |> Enum.any?(&same?(&1, want))
  end

  defp recent?(timestamp) do
    case Integer.parse(timestamp || "") do
      {seconds, ""} -> abs(System.os_time(:second) - seconds) <= 300
      _ -> false
    end
  end

  defp same?(a, b), do: byte_size(a) == byte_size(b) and :crypto.hash_equals(a, b)
end
