"""More issues of the invented shop, all of the test split: few issues tell little."""

ISSUES = """
# rental
Q Can I rent a {item} for two weeks in July? My last order was {order}. {name}
Q I rented the {item} of {order} and would like to keep it for another week. {name}
Q Hi, {name} here. Is it possible to buy the {item} that I rent under {order}?
A You can keep the {item} of {order} for as long as you like, at the weekly price.
N tell us the day on which you will bring it back.
A We have noted your wish for the {item} in {order}, and a rental is free from Monday.
N sign the rental form that we email today.
A The rent that you paid for the {item} in {order} counts towards its price.
N reply with yes, and we will change the bill.
# group order
Q We are a scout group and need twenty pieces of the {item}, as in {order}. Is there a
  discount? {name}
Q {name} from the school in Leeds: may we pay {order}, thirty of the {item}, after delivery?
Q For {order} I would like fifteen of the {item} in place of ten. Regards, {name}
A For ten pieces of the {item} or more we take 15 percent off, and {order} has been changed to
  match.
N check the new total in your account.
A Your group may pay {order} within 30 days of receiving every {item}.
N send us the address for the invoice.
A We have added to {order}, and each {item} will leave in the same parcel.
N tell us who signs for the parcel.
# wrong colour
Q My {item} is green, on your page it was blue. {order}. {name}
Q The colour of the {item} in order {order} is nothing like the photo. {name}
Q I am {name}, and I asked for a red {item} in {order}. This one is black.
A Thank you for the comparison. The {item} of {order} can be changed for the colour that you want.
N name the colour, and we will send it.
A The photo of the {item} was too bright, and we will take {order} back at our cost.
N print the label that is attached to this message.
A We have found the colour that you ordered, and a {item} for {order} ships today.
N put the first one into its box for our driver.
# password
Q I cannot log in any more and want to see where my {item} is. {order}, {name}
Q The link to set a new password never comes. My order is {order}, a {item}. {name}
Q Hello, this is {name}. My account shows no {item}, but I paid for {order} yesterday.
A Your account is open again, and {order} with the {item} is the first entry in it.
N choose a new password with the link that we send.
A We have joined {order} to your account, and the {item} is on its list.
N log in once more and look under My orders.
A The {item} of {order} is packed. The link for a password goes to the address of the order.
N look into the spam folder of that address.
# allergy
Q Is there any latex in the {item}? I am allergic and have just paid for {order}. {name}
Q My skin itches since I use the {item} from {order}. What is it made of? {name}
Q Before {order} ships: does the {item} contain wool? Thank you, {name}
A Your health comes first. We have stopped {order} until our workshop knows what the
  {item} is made of.
N stop using anything that itches, and see a doctor if it lasts.
A The list of materials for the {item} is attached, and {order} can be returned if one of them
  is wrong for you.
N compare the list with your doctor's.
A The {item} in {order} is made without animal fibres.
N tell us which materials you avoid, and we will note them.
# second hand
Q Do you take back a used {item}? I bought it in {order} four years ago. {name}
Q I want to sell my old {item} through your shop, it was {order}. How does that work? {name}
Q {name} here. What would you pay for the {item} of {order}, hardly used?
A We buy back the {item} of {order} and pay with a voucher.
N send two photos, one from each side.
A Every {item} has a second life with us, and {order} tells us its age.
N bring it to a shop of ours on any Saturday.
A Our workshop will look at the {item} of {order} and name a price within 3 working days.
N clean it, and put the number of the order into the box.
# newsletter
Q Stop sending me news, please. I only wanted the {item}, {order}. {name}
Q I get two newsletters a day since {order}. One {item} does not make me a fan. {name}
Q Hello, how do I leave your list? I gave my address for {order}, a {item}. {name}
A Your address is off our list, and only messages about the {item} of {order} will reach you.
N ignore a newsletter that is still on its way today.
A We have deleted your address from the news. For {order}, the {item}, it stays until delivery.
N write to us if another one comes.
A From today you will hear from us about {order} and the {item} alone.
N set what you want to receive in your account.
# instructions missing
Q There were no instructions with my {item}. {order}, {name}
Q How do I fold the {item} of {order} back into its bag? The leaflet is in Chinese. {name}
Q Good evening, I am {name}. Could you send the manual of the {item}, {order}?
A The manual of the {item} is attached, and a printed one for {order} follows by post.
N start with the picture on page two.
A We have a short film about the {item} of {order}, and the link is below.
N watch it once before you begin.
A The leaflet of the {item} in {order} now exists in six languages.
N tell us yours, and we will send it.
# size of parcel
Q Does the parcel of {order} fit through a letter box? It is only a {item}. {name}
Q {order} came in a huge box for one {item}. Can you pack smaller? {name}
Q Hello, {name} speaking. How heavy is the {item} of {order} with its box?
A The {item} of {order} weighs less than two kilos and needs somebody at the door.
N choose a shop near you if nobody is at home.
A Thank you for the hint. From now on the {item} leaves in a bag of paper, and {order}
  has been noted.
N fold the box, and use it for something else.
A We have put the size of the {item} and of the parcel of {order} into your account.
N look at the tab Delivery.
# payment failed
Q My card was refused for {order}, but the bank says all is well. I need that {item}. {name}
Q Is {order} paid or not? The page froze when I bought the {item}. {name}
Q {name} here. I would like to pay for the {item} by bank transfer, order {order}.
A The payment for {order} has arrived, and the {item} is being packed.
N close the old page and open your account anew.
A We keep the {item} of {order} for you for 5 days, and you can pay in any way.
N try the card once more, or send the money to the account below.
A Your bank has stopped the payment for the {item}, and {order} waits for it.
N call your bank and name the amount.
# signature
Q The driver wants a signature, but I work all day. {order}, a {item}. {name}
Q May my neighbour take {order}? It is the {item} for our trip. {name}
Q Hello from {name}. Please leave the {item} of {order} in the garden shed.
A Your neighbour may sign for {order}, and the driver knows where to ring for the {item}.
N tell your neighbour the number of the order.
A The {item} of {order} will be left where you said, at your own risk.
N reply with yes to agree.
A We have moved {order} to the evening, and the {item} will come after six.
N keep your phone near, the driver will call.
# recall
Q I read that the {item} is recalled. Mine is from {order}. Is it safe? {name}
Q Is the {item} in my order {order} one of the faulty ones? {name}
Q I am worried about the {item}, I sleep next to it. {order}. Yours, {name}
A Thank you for asking. The {item} of {order} is from another series and is safe to use.
N compare the number under its base with our list.
A The {item} of {order} belongs to the recall, and you will get the full price back.
N stop using it today, and keep it out of the reach of children.
A We check every {item} from that month, and {order} is among them.
N send us the number that is printed on the label.
# job
Q Do you need help in the shop? I have used the {item} of {order} for years and know it well. {name}
Q Who tests your gear? I would love to try the next {item}. I am the customer of {order}. {name}
Q Hello, {name} here. May I write about the {item} from {order} on my blog?
A We read every letter like yours, and the number {order} shows how long you have used the {item}.
N send your letter to the manager of the shop next to you.
A People who test the next {item} are chosen in May, and {order} puts you on the list.
N tell us where you go in summer.
A You are welcome to write about the {item} of {order}, good or bad.
N send us the link when it is done.
"""
